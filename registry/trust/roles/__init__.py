"""The trust policy: who has which role, how that changes, and who may not do what for want of one."""
