"""Floor 1: what exists, what is applied where, and who said so. Database, audit log, trust and Hub."""
