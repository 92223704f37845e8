//! An authority's words, made fit for messages: whoever reads those may be anyone.

/// Longest text of an authority's that goes into a message.
const MAX_TEXT: usize = 300;

const LEFT_OUT: &str = "[left out]";
const PEM_BEGIN: &str = "-----BEGIN";
const PEM_END: &str = "-----END";

/// One line, visible characters, not endless; without what was sent in secret, private keys, and whatever looks like a token.
pub(crate) fn cleaned(text: &str, sent: &[&str]) -> String {
    let text = text.split(" Trace ID:").next().unwrap_or(text);
    let without_sent =
        |text: String| sent.iter().fold(text, |text, secret| without(&text, secret.trim().as_bytes()));
    // Twice: a secret may have characters that are not shown, and such characters may stand between those of a secret.
    let shown = without_sent(text.to_owned()).chars().filter_map(shown).collect();
    let text = without_pem(&without_sent(shown));
    let words = text.split_whitespace().map(|word| if word.contains("eyJ") { LEFT_OUT } else { word });
    words.collect::<Vec<_>>().join(" ").chars().take(MAX_TEXT).collect()
}

/// What is invisible, or turns the direction of reading, is dropped.
fn shown(c: char) -> Option<char> {
    match c {
        '\u{ad}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => None,
        c if c.is_control() => Some(' '),
        c => Some(c),
    }
}

fn without(text: &str, secret: &[u8]) -> String {
    let (mut kept, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        if let Some(length) = begins_with(rest.as_bytes(), secret).filter(|length| *length > 0) {
            kept.push_str(LEFT_OUT);
            rest = &rest[length..];
        } else {
            kept.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    kept
}

/// How much of the text is the secret, each byte as it is or percent-encoded.
fn begins_with(text: &[u8], secret: &[u8]) -> Option<usize> {
    let digit = |c: &u8| char::from(*c).to_digit(16);
    secret.iter().try_fold(0, |at, byte| match &text[at..] {
        [b'%', high, low, ..]
            if digit(high).zip(digit(low)) == Some((u32::from(byte >> 4), u32::from(byte & 15))) =>
        {
            Some(at + 3)
        }
        [same, ..] if same == byte || (*same, *byte) == (b'+', b' ') => Some(at + 1),
        _ => None,
    })
}

fn without_pem(text: &str) -> String {
    let Some((before, block)) = text.split_once(PEM_BEGIN) else { return text.to_owned() };
    let ended = block.split_once(PEM_END).and_then(|(_, end)| end.split_once("-----"));
    format!("{before}{LEFT_OUT}{}", ended.map_or_else(String::new, |(_, after)| without_pem(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_line_and_no_token() {
        assert_eq!(cleaned("a\r\nb eyJhbGciOi.x.y Trace ID: 1", &[]), "a b [left out]");
        assert!(cleaned(&"x".repeat(10_000), &[]).len() <= MAX_TEXT);
    }

    #[test]
    fn what_was_sent_in_secret_is_left_out_wherever_and_however_it_stands() {
        let secret = "p~ä +/8\n";
        let cases = [
            ("wrong secret 'p~ä +/8'.", "wrong secret '[left out]'."),
            ("p~%C3%A4+%2B%2f8&client_id=a", "[left out]&client_id=a"),
            ("xp~ä%20+/8p~ä +/8", "x[left out][left out]"),
            ("p~\u{200b}ä +\u{202e}/8", "[left out]"),
            ("p~ä +/ is another, 100% %", "p~ä +/ is another, 100% %"),
        ];
        for (text, expected) in cases {
            assert_eq!(cleaned(text, &["", "s3cr3t", secret]), expected);
        }
        let late = format!("{}{secret}", "x".repeat(MAX_TEXT - 2));
        assert!(!cleaned(&late, &[secret]).contains("p~"), "nor the part of it that would fit");
    }

    #[test]
    fn a_pem_block_is_left_out_to_its_end_or_that_of_the_text() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----";
        assert_eq!(cleaned(&format!("a {pem} b {pem} c"), &[]), "a [left out] b [left out] c");
        assert_eq!(cleaned("a -----BEGIN PRIVATE KEY-----\nMIGH", &[]), "a [left out]");
    }

    #[test]
    fn what_is_invisible_or_turns_the_direction_is_dropped() {
        let text = "a\u{202a}b\u{202e}c\u{2066}d\u{2069}e\u{200b}f\u{200f}g\u{feff}h\u{1b}[0mi";
        assert_eq!(cleaned(text, &[]), "abcdefgh [0mi");
    }
}
