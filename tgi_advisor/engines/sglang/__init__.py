"""SGLang: `engine.yaml` what becomes of a TGI deployment, `<version>.json` its flags, `memory` its start-up sum."""
