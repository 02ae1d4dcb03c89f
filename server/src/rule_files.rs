//! Files of alert rules on the disk: read as one, with everything that is wrong in them.

use std::path::{Path, PathBuf};

use crate::domain::rule::{Rule, parse_file};

/// What is wrong in files of rules, a line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(Vec<String>);

/// Reads files of rules.
///
/// # Errors
/// Each mistake with file and line, in all of the files.
pub fn read(files: &[PathBuf]) -> Result<Vec<Rule>, Mistakes> {
    let (mut rules, mut mistakes) = (Vec::<Rule>::new(), Vec::new());
    for file in files {
        let Ok(read) = read_one(file).map_err(|wrong| mistakes.extend(wrong)) else { continue };
        for rule in read {
            if rules.iter().any(|known| known.name == rule.name) {
                mistakes.push(format!("{}: {} stands twice", file.display(), rule.name));
            }
            rules.push(rule);
        }
    }
    if mistakes.is_empty() { Ok(rules) } else { Err(Mistakes(mistakes)) }
}

fn read_one(file: &Path) -> Result<Vec<Rule>, Vec<String>> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| vec![format!("{}: {error}", file.display())])?;
    let line = |(line, why)| format!("{}:{line}: {why}", file.display());
    parse_file(&text).map_err(|wrong| wrong.into_iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_of_every_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let rule = |name: &str| {
            format!(
                "[[rule]]\nname = \"{name}\"\nmetric = \"t\"\nkind = \"threshold\"\nabove = 1\n"
            )
        };
        let texts = [rule("a") + &rule("b"), rule("b"), "\n[[rules]]\n".to_owned()];
        let mut files: Vec<PathBuf> =
            (0..texts.len()).map(|n| folder.path().join(n.to_string())).collect();
        files.iter().zip(&texts).for_each(|(file, text)| std::fs::write(file, text).unwrap());
        assert_eq!(read(&files[..1]).unwrap().len(), 2);
        files.push(folder.path().join("none"));
        let mistakes = read(&files).unwrap_err().to_string();
        let mistakes = mistakes.replace(folder.path().to_str().unwrap(), "");
        let mistakes: Vec<&str> = mistakes.lines().collect();
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        let starts = ["/1: b stands twice", "/2:2: file: ", "/none: No such file"];
        assert!(mistakes.iter().zip(starts).all(|(line, start)| line.starts_with(start)));
    }
}
