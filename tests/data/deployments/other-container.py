# not text-generation-inference
env = {"HF_MODEL_ID": "org/a", "OPTION_ROLLING_BATCH": "vllm"}
model = Model(image_uri="763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.27.0", env=env)
