"""Commands about who said what: signing keys, the log and its proof, statements about models."""
