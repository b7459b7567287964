#!/bin/sh
model=org/model-7b   # the model
volume=$PWD/data
export TOKEN=abc OPTS="--dtype float16"
# docker run ghcr.io/huggingface/text-generation-inference:1.0
sudo docker run -d --rm --gpus '"device=0,1"' --shm-size=1g -p8080:80 \
  -v "$volume":/data -e HF_TOKEN=$TOKEN -e HOME_ONLY --env=A=b -itu 1000 \
  ghcr.io/huggingface/text-generation-inference:3.3.4 --model-id ${model} $OPTS --revision "$1" >> log 2>&1 &
