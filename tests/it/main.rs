//! Rings 1 and 2 from the outside: whole trees, invariants, and the real parsers as judges.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests have effects and stop at once")]

mod cases;
mod golden;
mod hostile;
mod invariants;
mod judge;
mod proxy;
mod render;
