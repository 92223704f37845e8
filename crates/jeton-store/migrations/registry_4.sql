-- A data key may be wrapped by two sealing keys: while one takes over from another. `sealing` names the one in force.
CREATE TABLE wrapped_keys (
  owner BLOB NOT NULL, key_id TEXT NOT NULL, nonce BLOB NOT NULL, wrapped BLOB NOT NULL, PRIMARY KEY (owner, key_id)
) STRICT;
INSERT INTO wrapped_keys SELECT owner, (SELECT key_id FROM sealing), nonce, wrapped FROM data_keys;
DROP TABLE data_keys;
ALTER TABLE wrapped_keys RENAME TO data_keys;
