//! Running listeners in a test, on an embedded broker of their own.
