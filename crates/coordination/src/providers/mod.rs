//! The lock services.

use std::sync::Arc;

use crate::url::BackendUrl;
use crate::{Error, Options, Provider};

mod file;
mod memory;

pub use file::FileProvider;
pub use memory::{FaultPoint, MemoryProvider};

/// Opens the lock service that a URL names.
///
/// # Errors
/// [`Error::Config`] when the URL or an option of it is wrong or no such service is known, [`Error::Unavailable`] when it
/// cannot work.
pub async fn open(backend_url: &str, options: &Options) -> Result<Arc<dyn Provider>, Error> {
    let url = BackendUrl::parse(backend_url)?;
    match url.scheme.as_str() {
        "file" => Ok(Arc::new(FileProvider::open(&url, options).await?)),
        "memory" => Ok(Arc::new(MemoryProvider::named(&options.instance))),
        other => Err(Error::Config(format!(
            "there is no lock service '{other}'; known are file:// (one machine, or a shared directory) and memory:// (one \
             process)"
        ))),
    }
}
