//! `#!` scripts: finding the interpreter and its argument in a file's first bytes.

/// `BINPRM_BUF_SIZE`: how much of a file is looked at.
pub const HEAD: usize = 256;

/// What a `#!` line says.
#[derive(Debug, PartialEq, Eq)]
pub struct Script<'a> {
    pub interpreter: &'a [u8],
    /// Everything after the interpreter, as one argument.
    pub argument: Option<&'a [u8]>,
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Reads a `#!` line, by Linux's rules (`load_script`); `None` where there is none. `head` is the file's beginning,
/// filled up with zeroes where the file is shorter.
pub fn parse(head: &[u8; HEAD]) -> Option<Script<'_>> {
    let line = head.strip_prefix(b"#!")?;
    let text = match line.iter().position(|b| *b == b'\n') {
        Some(end) => &line[..end],
        None => {
            // The line may go on beyond what was read. That only matters for the interpreter's path, which must then
            // have ended: at a blank, or at the end of the file.
            let start = line.iter().position(|b| !is_blank(*b))?;
            line[start..].iter().position(|b| is_blank(*b) || *b == 0)?;
            &line[..line.len() - 1]
        }
    };
    let end = text.iter().rposition(|b| !is_blank(*b))? + 1;
    let start = text.iter().position(|b| !is_blank(*b))?;
    let text = &text[start..end];
    let separator = text.iter().position(|b| is_blank(*b) || *b == 0).unwrap_or(text.len());
    // Empty where a NUL comes first: that is no file, as its opening will tell.
    let interpreter = &text[..separator];
    let rest = &text[separator..];
    // A NUL ends the line.
    let argument = match rest.first() {
        Some(0) | None => None,
        Some(_) => {
            let start = rest.iter().position(|b| !is_blank(*b)).unwrap_or(rest.len());
            let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
            rest.get(start..end.max(start)).filter(|a| !a.is_empty())
        }
    };
    Some(Script { interpreter, argument })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let mut head = [0; HEAD];
        let n = text.len().min(HEAD);
        head[..n].copy_from_slice(&text[..n]);
        parse(&head).map(|s| (s.interpreter.to_vec(), s.argument.map(<[u8]>::to_vec)))
    }

    #[test]
    fn lines() {
        let some = |i: &[u8], a: Option<&[u8]>| Some((i.to_vec(), a.map(<[u8]>::to_vec)));
        assert_eq!(parsed(b"#!/bin/sh\nx"), some(b"/bin/sh", None));
        assert_eq!(parsed(b"#! \t/bin/sh \t -e -u \t\n"), some(b"/bin/sh", Some(b"-e -u")));
        assert_eq!(parsed(b"#!/bin/sh"), some(b"/bin/sh", None));
        assert_eq!(parsed(b"#!/bin/sh -x"), some(b"/bin/sh", Some(b"-x")));
        assert_eq!(parsed(b"#!\n"), None);
        assert_eq!(parsed(b"#!   \n/bin/sh"), None);
        assert_eq!(parsed(b"#! "), some(b"", None));
        assert_eq!(parsed(b"#"), None);
        assert_eq!(parsed(b"\x7fELF"), None);
        let mut long = b"#!/".to_vec();
        long.resize(300, b'a');
        assert_eq!(parsed(&long), None);
        long[200] = b' ';
        let (interpreter, argument) = parsed(&long).unwrap();
        assert_eq!((interpreter.len(), argument.unwrap().len()), (198, 254 - 200));
    }
}
