#![cfg_attr(fuzzing, no_main)]
livepeer_fuzz::target!(mux_frames);
