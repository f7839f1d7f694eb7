//! Tables on standard output: columns that line up, nothing around them.

/// Blanks between columns.
const GAP: &str = "   ";

/// A table with a heading; numbers belong in columns that `right` names.
pub(crate) fn table(heading: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let heading = heading.iter().map(|cell| (*cell).to_owned()).collect();
    aligned(std::iter::once(&heading).chain(rows), right)
}

/// Names and what they stand for, one below the other.
pub(crate) fn facts<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    aligned(rows.iter(), &[])
}

fn aligned<'a>(rows: impl Iterator<Item = &'a Vec<String>>, right: &[usize]) -> String {
    let rows: Vec<Vec<String>> = rows
        .map(|row| row.iter().map(|cell| one_line(cell)).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let width = |row: &Vec<String>| row.get(column).map_or(0, |cell| cell.chars().count());
            rows.iter().map(width).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| {
                let width = widths[column];
                if right.contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:width$}")
                }
            })
            .collect();
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

/// Cells come from peers too: control characters would move the cursor.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["noop".to_owned(), "4".to_owned()],
            vec!["comfyui\u{1b}[2J".to_owned(), "1,200".to_owned()],
        ];
        assert_eq!(
            table(&["model", "wei"], &[1], &rows),
            "model           wei\nnoop              4\ncomfyui [2J   1,200\n"
        );
    }

    #[test]
    fn facts_line_up() {
        let text = facts([("segments", "12".to_owned()), ("paid", "3 wei".to_owned())]);
        assert_eq!(text, "segments   12\npaid       3 wei\n");
    }
}
