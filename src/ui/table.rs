//! Aligned tables of text.

use super::text::{clean, pad, pad_left, width};

/// A table: headings in capitals by custom of kubectl, two blanks between columns, columns of numbers set to the right,
/// no blanks at a line's end. Cells are cleaned. Ends with a line break; a row may be shorter than the headings.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(column, heading)| cells(column).map(|cell| width(cell)).max().unwrap_or(0).max(width(heading)))
        .collect();
    let numbers: Vec<bool> =
        (0..headings.len()).map(|column| rows.len() > 1 && cells(column).all(|c| is_number(c))).collect();
    let line = |row: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = row
            .zip(widths.iter().zip(&numbers))
            .map(|(cell, (width, number))| if *number { pad_left(cell, *width) } else { pad(cell, *width) })
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text = line(&mut headings.iter().copied());
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

fn is_number(cell: &str) -> bool {
    cell == "-" || cell.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::table;

    #[test]
    fn columns_are_aligned() {
        let rows = [["cp1", "10.0.0.11", "9.5"], ["worker-1", "10.0.0.121", "12.0"], ["w2\x07", "-", "-"]]
            .map(|row| row.map(str::to_owned).to_vec());
        assert_snapshot!(table(&["NAME", "ADDRESS", "SECONDS"], &rows), @r"
        NAME      ADDRESS     SECONDS
        cp1       10.0.0.11       9.5
        worker-1  10.0.0.121     12.0
        w2\x07    -                 -
        ");
        assert_eq!(table(&["NAME", "STATE"], &[]), "NAME  STATE\n");
    }
}
