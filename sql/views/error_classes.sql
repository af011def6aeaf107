-- The families that rules speak of, by the last segment of the exception's type.
--
-- Grain: one row per known error_class.
--   error_class  as in `dead_letters`
--   family       transient: TimeoutError, ConnectionError and subclasses, may pass by itself;
--                critical: DatabaseError, AuthenticationError and subclasses, needs a person
SELECT error_class, family
FROM (
    VALUES
        -- Python
        ('TimeoutError', 'transient'),
        ('ConnectionError', 'transient'),
        ('ConnectionRefusedError', 'transient'),
        ('ConnectionResetError', 'transient'),
        ('ConnectionAbortedError', 'transient'),
        ('BrokenPipeError', 'transient'),
        -- requests, urllib3, httpx, aiohttp
        ('Timeout', 'transient'),
        ('ConnectTimeout', 'transient'),
        ('ReadTimeout', 'transient'),
        ('WriteTimeout', 'transient'),
        ('PoolTimeout', 'transient'),
        ('TimeoutException', 'transient'),
        ('ConnectError', 'transient'),
        ('ConnectTimeoutError', 'transient'),
        ('ReadTimeoutError', 'transient'),
        ('NewConnectionError', 'transient'),
        ('ClientConnectionError', 'transient'),
        ('ClientConnectorError', 'transient'),
        ('ServerDisconnectedError', 'transient'),
        ('ServerTimeoutError', 'transient'),
        ('ConnectionTimeoutError', 'transient'),
        ('SocketTimeoutError', 'transient'),
        -- nats, database drivers
        ('NoServersError', 'transient'),
        ('ConnectionClosedError', 'transient'),
        ('StaleConnectionError', 'transient'),
        ('ConnectionTimeout', 'transient'),
        ('ConnectionDoesNotExistError', 'transient'),
        ('CannotConnectNowError', 'transient'),
        -- Java, Go
        ('SocketTimeoutException', 'transient'),
        ('HttpTimeoutException', 'transient'),
        ('HttpConnectTimeoutException', 'transient'),
        ('ConnectException', 'transient'),
        ('DeadlineExceeded', 'transient'),
        -- databases
        ('DatabaseError', 'critical'),
        ('OperationalError', 'critical'),
        ('IntegrityError', 'critical'),
        ('ProgrammingError', 'critical'),
        ('InternalError', 'critical'),
        ('DataError', 'critical'),
        ('NotSupportedError', 'critical'),
        ('DBAPIError', 'critical'),
        ('PostgresError', 'critical'),
        ('SQLException', 'critical'),
        -- authentication
        ('AuthenticationError', 'critical'),
        ('AuthenticationFailed', 'critical'),
        ('AuthenticationException', 'critical'),
        ('AuthorizationError', 'critical'),
        ('InvalidPasswordError', 'critical'),
        ('UnauthorizedError', 'critical')
) AS families (error_class, family)
