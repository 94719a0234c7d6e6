//! The failure contract of Postrider as a suite that any adapter can run.
