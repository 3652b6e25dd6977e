//! oslo.config files to typed options.
