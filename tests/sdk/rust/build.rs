//! Makes the client of the document, as a file that `src/main.rs` takes in.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

const DOCUMENT: &str = "../../../openapi.json";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={DOCUMENT}");
    let document = serde_json::from_str(&fs::read_to_string(DOCUMENT)?)?;
    let client = progenitor_impl::Generator::default().generate_tokens(&document)?;
    let client = prettyplease::unparse(&syn::parse2(client)?);
    let place = Path::new(&env::var("OUT_DIR")?).join("messenger.rs");
    fs::write(place, client)?;
    Ok(())
}
