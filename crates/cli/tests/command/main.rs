//! The real `scoria` binary: what it prints and what it exits with.

mod cinder_api;
mod config;
mod db;
mod front_door;
mod locks;
mod locks_admin;
mod run;
