//! Database addresses: `sqlite://` and `postgres://`, and the forms that SQLAlchemy writes.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Invalid, Result};

/// Where the database is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Target {
    /// Reads an address.
    ///
    /// `sqlite://app.db`, `sqlite:///app.db` and `sqlite:///./app.db` are relative to the working
    /// folder (the last two are how SQLAlchemy writes it; nobody keeps a database in `/` itself);
    /// `sqlite:///var/lib/app.db` and `sqlite:////var/lib/app.db` are absolute. A driver after a
    /// plus sign (`sqlite+aiosqlite`, `postgresql+asyncpg`) is accepted and means nothing here.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let refused = |why: &str| {
            let rule = format!("{why}: use sqlite://FILE or postgres://USER@HOST/NAME");
            Error::Invalid(Invalid::new("database_url", rule))
        };
        let (scheme, rest) = url
            .split_once(':')
            .ok_or_else(|| refused("has no scheme"))?;
        let scheme = scheme.split('+').next().unwrap_or_default();
        match scheme {
            "sqlite" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                let path = path.split(['?', '#']).next().unwrap_or_default();
                let path = match path.strip_prefix('/') {
                    Some(dotted) if dotted.starts_with("./") || dotted.starts_with("../") => dotted,
                    Some(absolute) if absolute.starts_with('/') => absolute,
                    Some(name) if !name.contains('/') => name,
                    _ => path,
                };
                if path.is_empty() || path.contains(":memory:") {
                    return Err(refused(
                        "names no file (a database in memory has no readers)",
                    ));
                }
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            "postgres" | "postgresql" if cfg!(feature = "postgres") => {
                Ok(Self::Postgres(format!("postgres:{rest}")))
            }
            "postgres" | "postgresql" => Err(refused("needs the feature `postgres`")),
            _ => Err(refused("has an unknown scheme")),
        }
    }

    pub(crate) fn driver_url(&self) -> String {
        match self {
            // The path itself is handed over as it is, not inside of a URL.
            Self::Sqlite(_) => "sqlite://file".to_owned(),
            Self::Postgres(url) => url.clone(),
        }
    }
}

/// Without the password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => match url.rsplit_once('@') {
                Some((_, place)) => write!(f, "postgres://{place}"),
                None => f.write_str(url),
            },
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(path: &str) -> Target {
        Target::Sqlite(PathBuf::from(path))
    }

    #[test]
    fn every_accepted_form_of_an_sqlite_address_names_its_file() {
        for (url, path) in [
            ("sqlite://app.db", "app.db"),
            ("sqlite:app.db", "app.db"),
            ("sqlite:///app.db", "app.db"),
            ("sqlite:///./app.db", "./app.db"),
            ("sqlite:///../app.db", "../app.db"),
            ("sqlite+aiosqlite:///./app.db", "./app.db"),
            ("sqlite:///var/lib/app.db", "/var/lib/app.db"),
            ("sqlite:////var/lib/app.db", "/var/lib/app.db"),
            ("sqlite://app.db?mode=rwc", "app.db"),
        ] {
            assert_eq!(Target::parse(url).expect(url), sqlite(path), "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in ["", "app.db", "mysql://x", "sqlite://", "sqlite::memory:"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_password_is_not_shown() {
        let target = Target::parse("postgresql+asyncpg://ann:pass@word@db/chat").expect("a URL");

        assert_eq!(target.to_string(), "postgres://db/chat");
        assert_eq!(target.driver_url(), "postgres://ann:pass@word@db/chat");
    }
}
