//! Model checks of the cells' atomic protocols: every order of two threads' steps, and every value a relaxed load
//! may return, within stated bounds (two threads, three operations each). The checks stand in `tests/` and are
//! empty unless built for loom:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p tidegate-loom
//! ```

#![forbid(unsafe_code)]
