HUGGING_FACE_HUB_TOKEN="${HF_TOKEN-}" docker run --rm \
    --name tgi \
    --gpus all \
    --shm-size 1g \
    -p 8080:8080 \
    -v "$PWD"/data:/tmp \
    -e HF_MODEL_ID=HuggingFaceH4/zephyr-7b-beta \
    -e SM_NUM_GPUS=2 \
    -e MAX_INPUT_TOKENS=31744 \
    -e MAX_TOTAL_TOKENS=32768 \
    -e MAX_BATCH_PREFILL_TOKENS=31794 \
    ${HF_TOKEN:+--env=HUGGING_FACE_HUB_TOKEN} \
    763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.1.1-tgi2.0.2-gpu-py310-cu121-ubuntu22.04
