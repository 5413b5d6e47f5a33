//! The management API: REST for people, scripts and Terraform.
