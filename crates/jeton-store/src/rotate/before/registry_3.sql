-- A registry of schema 4 as it was under schema 3.
CREATE TABLE before (owner BLOB PRIMARY KEY, nonce BLOB NOT NULL, wrapped BLOB NOT NULL) STRICT;
INSERT INTO before SELECT owner, nonce, wrapped FROM data_keys;
DROP TABLE data_keys;
ALTER TABLE before RENAME TO data_keys;
PRAGMA user_version = 3;
