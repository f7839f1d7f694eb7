#![cfg_attr(fuzzing, no_main)]
livepeer_fuzz::target!(rebuild_stream);
