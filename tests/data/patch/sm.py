from sagemaker.huggingface import HuggingFaceModel
model = HuggingFaceModel(image_uri="763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.4.0-tgi3.0.1-gpu-py311-cu124-ubuntu22.04",
    env={"HF_MODEL_ID": "Qwen/Qwen2.5-7B-Instruct", "SM_NUM_GPUS": "1"}, role=role)
model.deploy(1, "ml.g5.2xlarge")
