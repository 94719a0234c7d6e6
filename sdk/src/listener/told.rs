//! The text of an error that is not ours: always to be had, on one line, and of a bounded length.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The longest text, in bytes: what does not decode is quoted by its error, however large it is.
const LONGEST: usize = 4000;

/// Takes what fits. A line break of a payload would begin a line of its own in a log.
#[derive(Default)]
struct Line {
    text: String,
    is_full: bool,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if self.text.len() + letter.len_utf8() > LONGEST {
                self.is_full = true;
                return Err(fmt::Error);
            }
            self.text.push(if letter.is_control() { ' ' } else { letter });
        }
        Ok(())
    }
}

/// The error's text followed by those of its causes. It is asked for outside of the handler, where a panic would end more
/// than that.
pub(super) fn told(error: &(dyn Error + 'static)) -> String {
    let mut line = Line::default();
    let written = catch_unwind(AssertUnwindSafe(|| write(error, &mut line)));
    if line.is_full {
        line.text.push_str("… (cut)");
    } else if !matches!(written, Ok(Ok(()))) {
        line.text
            .push_str(" (the rest of this error's text cannot be had)");
    }
    line.text
}

fn write(error: &(dyn Error + 'static), line: &mut Line) -> fmt::Result {
    write!(line, "{error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(line, ": {error}")?;
        cause = error.source();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: impl Into<String>) -> String {
        told(&*Box::<dyn Error>::from(text.into()))
    }

    #[test]
    fn a_text_is_one_line_and_no_longer_than_what_is_kept() {
        assert_eq!(of("short\nand ä\r\x1b["), "short and ä  [");
        let cut = of(format!("x{}", "ä".repeat(3000)));
        assert_eq!(cut, format!("x{}… (cut)", "ä".repeat(1999)));
        assert_eq!(of("x".repeat(LONGEST)), "x".repeat(LONGEST));
    }
}
