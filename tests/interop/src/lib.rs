//! Programs without Postrider read and write the same messages: see `tests/`.
