//! PostgreSQL: a queue that pods share.
