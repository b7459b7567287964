token=<your-token>
ARG MODEL=org/a
docker run --gpus all -e HF_TOKEN=<hf token> ghcr.io/huggingface/text-generation-inference:2.4.1 --model-id "org/a
