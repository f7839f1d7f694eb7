#![cfg_attr(fuzzing, no_main)]
livepeer_fuzz::target!(decode_backend);
