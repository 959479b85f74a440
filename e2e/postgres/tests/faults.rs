//! What needs a PostgreSQL, below a module of that name: `cargo xtask check` leaves it out where there is none.

mod on_postgres;
