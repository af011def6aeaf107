// A service that writes its own dead letter, as docs/wire-format.md says:
// node failing.mjs URL PREFIX STREAM
import { AckPolicy, connect, headers } from "nats";

const [url, prefix, stream] = process.argv.slice(2);
const connection = await connect({ servers: url });
const jetstream = connection.jetstream();
const manager = await connection.jetstreamManager();
await manager.consumers.add(stream, {
  durable_name: "pricing",
  ack_policy: AckPolicy.Explicit,
  max_deliver: -1,
});
const message = await (await jetstream.consumers.get(stream, "pricing")).next({ expires: 5000 });
try {
  JSON.parse(message.string()).yield.toFixed(2);
} catch (error) {
  const now = new Date().toISOString();
  const deadLetter = {
    event_id: "unknown",
    original_subject: message.subject,
    event_type: message.subject.split(".").pop(),
    source_service: "unknown",
    tenant_id: null,
    field_id: null,
    farmer_id: null,
    error_message: error.message,
    error_type: error.name,
    stack_trace: error.stack,
    retry_count: message.info.redeliveryCount - 1,
    max_retries: 0,
    first_attempt_at: now,
    last_attempt_at: now,
    dlq_timestamp: now,
    dlq_reason: "max_retries_exceeded",
    original_data: JSON.parse(message.string()),
    original_headers: {},
    consumer_name: "pricing",
    consumer_service: "pricing-service",
    original_stream: stream,
    original_sequence: message.seq,
  };
  const unique = headers();
  unique.set("Nats-Msg-Id", `pricing-${message.seq}`);
  await jetstream.publish(`${prefix}.dlq.${deadLetter.event_type}`, JSON.stringify(deadLetter), {
    headers: unique,
  });
  message.ack(); // only now
}
await connection.drain();
