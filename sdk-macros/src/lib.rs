//! The attribute and derive macros of Postrider.
