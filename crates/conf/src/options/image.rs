//! `[DEFAULT]`: images.

use std::path::PathBuf;
use std::time::Duration;

use super::spec::{BOOL, INT, LIST, STR, at_least, choice, options};

options! {
    /// `[DEFAULT]`: images (`cinder/image/glance.py`, `cinder/image/image_utils.py`).
    pub struct ImageOptions in "DEFAULT" => {
        /// The image services, as URLs or HOST:PORT, separated by commas. Unset: taken from the catalog.
        glance_api_servers: Vec<String> = LIST;
        /// Where the catalog has the image service, as TYPE:NAME:ENDPOINT.
        glance_catalog_info: String = STR.default("image:glance:publicURL");
        /// How many times a failed request to the image service is repeated.
        glance_num_retries: u32 = at_least(0).default("3");
        /// Seconds for one request to the image service. Unset: no limit.
        glance_request_timeout: Option<Duration> = INT;
        /// Whether the image service's certificate is taken unseen.
        glance_api_insecure: bool = BOOL.default("false");
        /// The authorities that may sign the image service's certificate.
        glance_ca_certificates_file: Option<PathBuf> = STR;
        /// Whether signatures of images are checked.
        verify_glance_signatures: String = choice(&["disabled", "enabled"]).default("enabled");
        /// Which locations of an image may be read without the image service: `cinder`, `file`.
        allowed_direct_url_schemes: Vec<String> = LIST;
        /// The directory for images on their way.
        image_conversion_dir: PathBuf = STR.default("$state_path/conversion");
        /// Whether images are refused whose format differs from the volume's.
        image_conversion_disable: bool = BOOL.default("false");
        /// Whether qcow2 images are compressed when a volume is uploaded.
        image_compress_on_upload: bool = BOOL.default("true");
        /// Whether images of the container format `compressed` may be uploaded.
        allow_compression_on_image_upload: bool = BOOL.default("false");
        /// How such images are compressed.
        compression_format: String = choice(&["gzip"]).default("gzip");
        /// Seconds of processor time for `qemu-img info` on an image.
        image_introspection_cpu_limit: u64 = INT.default("60").deprecated(&[("", "image_conversion_cpu_limit")]);
        /// GiB of address space for `qemu-img info` on an image.
        image_introspection_address_space_limit: u64 =
            INT.default("1").deprecated(&[("", "image_conversion_address_space_limit")]);
        /// The `createType`s of VMDK images that are taken.
        vmdk_allowed_types: Vec<String> = LIST.default("streamOptimized,monolithicSparse");
        /// Prefixes of further image properties that an upload drops.
        reserved_image_namespaces: Vec<String> = LIST;
        /// The attributes of an image that its volume remembers.
        glance_core_properties: Vec<String> = LIST.default(
            "checksum,container_format,disk_format,image_name,image_id,min_disk,min_ram,name,size",
        );
    }
}
