//! SQLite: a file in a volume, owned by the process that has it open.
