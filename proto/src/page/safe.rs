//! Text from a proof, made harmless: what stands in a proof must not be able to write the report.

/// `text` on one line, with everything that a terminal or a reader would not see, or see elsewhere, written out.
pub fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => safe.push_str("\\\\"),
            c if is_hidden(c) => safe.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

/// The same, cut after `max` characters.
pub fn short(value: &str, max: usize) -> String {
    let mut cut: String = value.chars().take(max).collect();
    if cut.len() < value.len() {
        cut.push('…');
    }
    text(&cut)
}

/// JSON in which hidden characters, which stand in its strings alone, are written as escapes.
pub fn json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Control characters, line separators, characters without width and those that change the direction of writing.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0xad | 0x34f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
            | 0x2028..=0x202e | 0x2060..=0x206f | 0x2800 | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb
            | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff
            // Scripts that run from right to left turn the digits and signs beside them round.
            | 0x590..=0x8ff | 0xfb1d..=0xfdff | 0xfe70..=0xfefe | 0x10800..=0x10fff | 0x1e800..=0x1efff)
        // Blanks other than the one on the keyboard look like it.
        || (c.is_whitespace() && c != ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_moves_the_reader_s_eye() {
        let hostile = "Amt\u{1b}[2J\r\n\u{202e}tla\u{200b}\u{feff}\u{2028}\u{9b}\\u{41}\u{e0041}";
        let shown = text(hostile);
        assert_eq!(
            shown,
            "Amt\\u{1b}[2J\\u{d}\\u{a}\\u{202e}tla\\u{200b}\\u{feff}\\u{2028}\\u{9b}\\\\u{41}\\u{e0041}"
        );
        assert_eq!(text("Lübeck – Straße 5"), "Lübeck – Straße 5");
        assert_eq!(short("abcdef", 3), "abc…");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({ "a": "x\u{202e}y\u{e0041}\u{7f}\n" });
        let written = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!written.contains('\u{202e}') && !written.contains('\u{7f}'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), value);
    }
}
