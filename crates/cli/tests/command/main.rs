//! The real `scoria` binary: what it prints and what it exits with.

mod cinder_api;
mod config;
mod db;
mod front_door;
mod lock_services;
mod locks;
mod locks_admin;
mod place;
mod run;
