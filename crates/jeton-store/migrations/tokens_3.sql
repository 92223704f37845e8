-- As in the registry, which knows what the sealing key of the rows before is called: the start writes it down.
CREATE TABLE wrapped_days (
  day INTEGER NOT NULL, key_id TEXT NOT NULL, nonce BLOB NOT NULL, wrapped BLOB NOT NULL, PRIMARY KEY (day, key_id)
) STRICT;
INSERT INTO wrapped_days SELECT day, '', nonce, wrapped FROM token_days;
DROP TABLE token_days;
ALTER TABLE wrapped_days RENAME TO token_days;
