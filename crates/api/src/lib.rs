//! HTTP: health, metrics, and the front door of stand-alone mode.
