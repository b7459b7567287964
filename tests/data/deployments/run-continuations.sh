docker run --gpus all \
  ghcr.io/huggingface/text-generation-inference:2.4.1 \
  --model-id org/a \ 
  --num-shard 2
docker run --gpus all ghcr.io/huggingface/text-generation-inference:2.4.1 \
  --model-id org/b
  --num-shard 4
docker run --gpus all \
  ghcr.io/huggingface/text-generation-inference:2.4.1 \
  # --dtype float16 \
  --model-id org/c
