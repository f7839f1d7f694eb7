#![cfg_attr(fuzzing, no_main)]
livepeer_fuzz::target!(machine_runner);
