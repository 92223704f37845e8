-- Tokens of schema 3 as they were under schema 2.
CREATE TABLE before (day INTEGER PRIMARY KEY, nonce BLOB NOT NULL, wrapped BLOB NOT NULL) STRICT;
INSERT INTO before SELECT day, nonce, wrapped FROM token_days;
DROP TABLE token_days;
ALTER TABLE before RENAME TO token_days;
PRAGMA user_version = 2;
