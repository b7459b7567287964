docker run --rm \
    --name tgi \
    --gpus all \
    --shm-size 1g \
    -p 8080:8080 \
    -v "$PWD"/data:/data \
    -e HF_MODEL_ID=Qwen/Qwen2.5-7B-Instruct \
    -e SM_NUM_GPUS=1 \
    -e MAX_INPUT_TOKENS=31744 \
    -e MAX_TOTAL_TOKENS=32768 \
    -e MAX_BATCH_PREFILL_TOKENS=7744 \
    -e HF_TOKEN \
    763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.7.0-tgi3.3.6-gpu-py311-cu124-ubuntu22.04-v2.1
