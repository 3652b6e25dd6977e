-- The locks of [coordination] backend_url = database://. A row is one lock; it is somebody's while it has a claim and until
-- expires_at, microseconds since 1970 on the database's clock. The fencing token is made of id and uses: a row's id is
-- higher than that of every row removed before it, and uses counts its holders.

CREATE TABLE scoria_locks (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name VARCHAR(255) NOT NULL UNIQUE,
    claim VARCHAR(36) NOT NULL,
    uses BIGINT NOT NULL,
    taken_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    instance VARCHAR(255) NOT NULL,
    host VARCHAR(255),
    operation VARCHAR(255) NOT NULL,
    request_id VARCHAR(255),
    resource VARCHAR(255)
);
