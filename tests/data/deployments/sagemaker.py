import json
llm_image = get_huggingface_llm_image_uri("huggingface", version="2.3.1")
number_of_gpu = 4
base = "org"
config = {
    'HF_MODEL_ID': f"{base}/model-7b",  # the model
    'SM_NUM_GPUS': json.dumps(number_of_gpu),
    'MAX_TOTAL_TOKENS': json.dumps(4096),
    'HF_TOKEN': get_token(),
}
config["MAX_INPUT_TOKENS"] = str(2048)
model = HuggingFaceModel(role=role, image_uri=llm_image, env=config)
model.deploy(initial_instance_count=1, instance_type="ml.g5.12xlarge")
