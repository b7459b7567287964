image = f"763104351884.dkr.ecr.{region}.amazonaws.com/huggingface-pytorch-tgi-inference:2.6.0-tgi3.2.0-gpu"
client.create_model(Containers=[{"Image": image, "Environment": {"HF_MODEL_ID": "org/a", "SM_NUM_GPUS": "1"}}])
client.create_endpoint_config(ProductionVariants=[{"InstanceType": "ml.g6.xlarge", "ModelName": name}])
