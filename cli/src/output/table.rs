//! Tables as Docker prints them: columns three spaces apart and at least ten wide, no lines.

use super::printable;

const GAP: usize = 3;
const LEAST: usize = 10;

/// The table with its header, a line for each row.
pub(crate) fn render(headers: &[&str], rows: &[Vec<String>]) -> String {
    let header = headers.iter().map(|header| (*header).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(header)
        .chain(rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()))
        .collect();
    let widths: Vec<usize> = (0..headers.len())
        .map(|column| {
            let longest = lines.iter().filter_map(|line| line.get(column)).map(|c| width(c)).max();
            LEAST.max(longest.unwrap_or(0) + GAP)
        })
        .collect();
    let mut text = String::new();
    for line in &lines {
        let mut out = String::new();
        for (cell, column) in line.iter().zip(&widths) {
            out += cell;
            out.extend(std::iter::repeat_n(' ', column - width(cell)));
        }
        text += out.trim_end();
        text.push('\n');
    }
    text
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::render;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|c| c.to_string()).collect()
    }

    #[test]
    fn columns_are_aligned() {
        let text = render(
            &["ID", "NAME", "MODE"],
            &[row(&["abc", "a-rather-long-name", "x"]), row(&["d", "é", ""])],
        );
        assert_eq!(
            text,
            "ID        NAME                 MODE\n\
             abc       a-rather-long-name   x\n\
             d         é\n"
        );
    }

    #[test]
    fn an_empty_list_has_its_header() {
        assert_eq!(render(&["ID", "NAME"], &[]), "ID        NAME\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = render(&["ERROR"], &[row(&["two\nlines\x1b[2J"])]);
        assert_eq!(text, "ERROR\ntwo lines [2J\n");
    }
}
