//! `postgresql://`.

use std::sync::Arc;

use crate::url::BackendUrl;
use crate::{Error, Options, Provider};

pub(super) fn open(_url: &BackendUrl<'_>, _options: &Options) -> Result<Arc<dyn Provider>, Error> {
    Err(Error::Config("not built yet".to_owned()))
}
