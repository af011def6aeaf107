// A service that uses none of our code: node worker.mjs URL STREAM CONSUMER MAX_DELIVER COUNT
// It settles COUNT deliveries as each event's body says: ok, nak, or term with a reason.
import { AckPolicy, connect, JSONCodec } from "nats";

const [url, stream, consumer, maxDeliver, count] = process.argv.slice(2);
const connection = await connect({ servers: url });
const manager = await connection.jetstreamManager();
await manager.consumers.add(stream, {
  durable_name: consumer,
  ack_policy: AckPolicy.Explicit,
  max_deliver: Number(maxDeliver),
});
const messages = await (await connection.jetstream().consumers.get(stream, consumer)).consume();
let settled = 0;
const stop = setTimeout(() => process.exit(3), 60_000);
for await (const message of messages) {
  const { verdict, reason } = JSONCodec().decode(message.data);
  if (verdict === "ok") message.ack();
  else if (verdict === "term") message.term(reason);
  else message.nak();
  settled += 1;
  // Pulling goes on for a moment: only then the server says that an event is exhausted.
  if (settled === Number(count)) setTimeout(() => messages.close(), 300);
}
clearTimeout(stop);
console.log(JSON.stringify({ settled }));
await connection.drain();
