-- Tokens over a restart. Losing the latest rows costs refreshes and nothing else.
CREATE TABLE token_days (day INTEGER PRIMARY KEY, nonce BLOB NOT NULL, wrapped BLOB NOT NULL) STRICT;
CREATE TABLE tokens (
  token_key TEXT PRIMARY KEY, identity BLOB NOT NULL, day INTEGER NOT NULL, schema INTEGER NOT NULL, expires_at INTEGER NOT NULL,
  facts TEXT NOT NULL, nonce BLOB NOT NULL, sealed BLOB NOT NULL
) STRICT;
CREATE INDEX tokens_by_expiry ON tokens (expires_at);
CREATE TABLE holds (authority BLOB NOT NULL, identity BLOB NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (authority, identity)) STRICT;
